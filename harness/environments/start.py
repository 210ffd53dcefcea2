"""Program that starts a module of ours in an engine's interpreter: ``PYTHON start.py MODULE ARGUMENT...``.

The package ``harness`` becomes importable there, and nothing that lies beside it: where it is installed, that folder
holds another environment's distributions. Read by every Python 3, so that one which is too old can be told so.
"""

import sys

HERE = __file__.rpartition("/")[0]
ROOT = HERE.rpartition("/")[0]
sys.path[:] = [place for place in sys.path if place != HERE]  # this file's own folder, which has modules of other names

if sys.version_info < (3, 11):  # noqa: UP036, this is what asks it
    sys.exit("it is Python %s, and a rank needs Python 3.11 or newer" % sys.version.split()[0])  # noqa: UP031

import importlib.util  # noqa: E402
import runpy  # noqa: E402

if __name__ == "__main__":
    spec = importlib.util.spec_from_file_location("harness", ROOT + "/__init__.py", submodule_search_locations=[ROOT])
    assert spec is not None
    assert spec.loader is not None
    package = sys.modules["harness"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
