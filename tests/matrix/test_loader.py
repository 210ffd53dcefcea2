"""Matrix files: what they expand to, and every way in which one can be wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import codec, plugins
from harness.errors import ConfigError
from harness.matrix.loader import current_pin, current_store, read_matrix
from harness.types import Bound, Matrix, Relation, Size

GOOD = """
model = "fake"

[[case]]
size = "64x64"
prompt = "a red ball"

[[variant]]
engine = "fake"
ulysses = 2
"""
Read = Callable[[str], Matrix]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(text: str) -> Matrix:
        path = tmp_path / "matrices" / "own.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return read_matrix(path)

    return read


@pytest.fixture
def complain(read: Read) -> Callable[[str], str]:
    """What reading a file ends with: one line that begins with the file."""

    def complain(text: str) -> str:
        with pytest.raises(ConfigError) as error:
            read(text)
        message = str(error.value)
        assert len(message.splitlines()) == 1
        assert error.value.exit_code == 2
        file, separator, rest = message.partition("own.toml: ")
        assert separator, message
        assert file.endswith("/matrices/")
        return rest

    return complain


def top(lines: str) -> str:
    return f"{lines}\n{GOOD}"


def case(lines: str) -> str:
    return GOOD.replace('prompt = "a red ball"', f'prompt = "a red ball"\n{lines}')


def variant(lines: str) -> str:
    return f"{GOOD}{lines}\n"


def bound(lines: str) -> str:
    return f"{GOOD}[[bound]]\n{lines}\n"


def sized(value: str) -> str:
    return GOOD.replace('"64x64"', value)


def degree(value: str) -> str:
    return GOOD.replace("ulysses = 2", f"ulysses = {value}")


class TestExpansion:
    def test_a_list_of_sizes_is_as_many_cases(self, read: Read) -> None:
        matrix = read(sized('["64x48", "48x64"]'))
        assert [(c.name, c.size) for c in matrix.cases] == [("64x48", Size(64, 48)), ("48x64", Size(48, 64))]

    def test_every_case_meets_every_variant_in_the_order_of_the_file(self, read: Read) -> None:
        matrix = read(sized('["64x48", "48x64"]') + 'axis = ["h", "w"]\n')
        assert matrix.pairs == (
            ("64x48", "fake-u2-h"),
            ("64x48", "fake-u2-w"),
            ("48x64", "fake-u2-h"),
            ("48x64", "fake-u2-w"),
        )

    @pytest.mark.parametrize(("engine", "axis"), [("fake", "auto"), ("diffusers-cp", "none")])
    def test_the_axis_is_one_that_the_engine_knows(self, read: Read, engine: str, axis: str) -> None:
        (variant,) = read(degree("2").replace('engine = "fake"', f'engine = "{engine}"')).variants
        assert (variant.engine, variant.axis) == (engine, axis)

    def test_lists_of_a_variant_multiply(self, read: Read) -> None:
        matrix = read(degree("[2, 3]") + 'axis = ["auto", "h"]\nlayout = ["aligned", "exact"]\n')
        found = {(v.ulysses, v.axis, v.layout) for v in matrix.variants}
        assert found == {(u, a, x) for u in (2, 3) for a in ("auto", "h") for x in ("aligned", "exact")}
        assert len(matrix.variants) == 8

    def test_defaults_are_those_of_the_types(self, read: Read) -> None:
        matrix = read(GOOD)
        (only,) = matrix.cases
        assert (only.name, only.dtype, only.device, only.steps, only.seed) == ("64x64", "float32", "cpu", 4, 0)
        assert (only.golden, only.timeout_s, only.guidance_scale) == ("required", 120.0, 0.0)
        assert (matrix.name, matrix.metrics, matrix.declared) == ("own", (), ())
        assert matrix.variants[0].required

    def test_a_case_overrides_what_stands_at_the_top(self, read: Read) -> None:
        lines = 'steps = 7\nseed = 3\ndtype = "bfloat16"\ndevice = "cuda"\ngolden = "off"\ntimeout_s = 9\n'
        text = top("steps = 2\nseed = 1\ngolden = 'required'\ntimeout_s = 50")
        text = text.replace(
            "[[variant]]", f'[[case]]\nsize = "16x16"\nprompt = "x"\nmodel = "nano"\n{lines}\n[[variant]]'
        )
        text += '\n[[bound]]\nrelation = "exchange"\nmetric = "psnr"\nat_least = 50\n'
        first, second = read(text).cases
        assert (first.steps, first.seed, first.golden, first.timeout_s, first.model) == (2, 1, "required", 50, "fake")
        assert (second.steps, second.seed, second.golden, second.timeout_s) == (7, 3, "off", 9)
        assert (second.dtype, second.device, second.model) == ("bfloat16", "cuda", "nano")

    def test_everything_a_case_may_say(self, read: Read) -> None:
        text = GOOD.replace('prompt = "a red ball"', 'prompt = ["one", "two"]\nname = "batch"\nguidance_scale = 5')
        text = text.replace("guidance_scale", 'negative_prompt = "blurred"\nnum_images_per_prompt = 2\nguidance_scale')
        (only,) = read(text.replace("[[variant]]", 'revision = "main"\n[[variant]]')).cases
        assert (only.name, only.prompts, only.num_images) == ("batch", ("one", "two"), 4)
        assert (only.negative_prompts, only.guidance_scale) == (("blurred", "blurred"), 5.0)
        assert only.revision == "main"

    def test_requests_of_a_sequence_are_told_by_their_place_and_may_repeat(self, read: Read) -> None:
        first, second, third, alone = read(
            GOOD.replace("[[variant]]", '[[case]]\nsize = "64x64"\nprompt = "a red ball"\n[[variant]]').replace(
                'size = "64x64"', 'size = ["64x64", "16x16", "64x64"]\nsequence = "mixed"', 1
            )
        ).cases
        assert [case.name for case in (first, second, third)] == ["mixed-1-64x64", "mixed-2-16x16", "mixed-3-64x64"]
        assert first.identity() == third.identity() == alone.identity()
        assert {case.sequence for case in (first, second, third)} == {"mixed"}
        assert (alone.name, alone.sequence) == ("64x64", None)

    def test_as_many_negative_prompts_as_prompts(self, read: Read) -> None:
        text = case('guidance_scale = 1.5\nnegative_prompt = ["c", "d"]').replace('"a red ball"', '["a", "b"]')
        assert read(text).cases[0].negative_prompts == ("c", "d")

    def test_a_name_for_several_sizes_is_a_prefix(self, read: Read) -> None:
        matrix = read(sized('["64x48", "48x64"]\nname = "ball"'))
        assert [c.name for c in matrix.cases] == ["ball-64x48", "ball-48x64"]

    def test_a_variant_may_be_limited_to_cases_by_pattern(self, read: Read) -> None:
        text = sized('["64x48", "48x64", "48x48", "80x80"]') + 'cases = ["48x*", "80x80"]\n'
        assert [name for name, _ in read(text).pairs] == ["48x64", "48x48", "80x80"]

    def test_everything_a_variant_may_say(self, read: Read) -> None:
        lines = 'ring = 2\naxis = "w"\nlayout = "exact"\ncache = "cache-dit"\nfault = "seam"\nrequired = false\n'
        (only,) = read(variant(lines + "options = { step_s = 0.5, on = true }")).variants
        assert (only.degree, only.axis, only.layout, only.cache) == (4, "w", "exact", "cache-dit")
        assert (only.fault, only.required, only.options) == ("seam", False, {"step_s": 0.5, "on": True})

    def test_metrics_may_be_chosen(self, read: Read) -> None:
        assert read(top('metrics = ["ssim", "psnr"]')).metrics == ("ssim", "psnr")

    def test_bounds_may_be_declared(self, read: Read) -> None:
        text = bound('relation = "pair"\nmetric = "psnr"\nat_least = 30')
        text += '[[bound]]\nrelation = "golden-candidate"\nmetric = "max-abs"\ndomain = "image"\nat_most = 4.5\n'
        psnr, levels = read(text).declared
        assert psnr == (Relation.PAIR, Bound("psnr", "latents", 30.0, "dB", "declared", 0.0, "at least"))
        assert levels[0] == Relation.GOLDEN_CANDIDATE
        assert (levels[1].value, levels[1].domain, levels[1].direction) == (4.5, "image", "at most")

    def test_a_matrix_survives_json(self, read: Read) -> None:
        matrix = read(bound('relation = "pair"\nmetric = "psnr"\nat_least = 30'))
        assert codec.decode(Matrix, json.loads(json.dumps(codec.encode(matrix)))) == matrix


class TestGoldenStore:
    def test_lies_beside_the_folder_of_matrices(self, read: Read, tmp_path: Path) -> None:
        assert Path(read(GOOD).golden_store) == tmp_path / "golden"
        folder = Path(read(GOOD).path).absolute().parent
        for place, store in ((tmp_path, tmp_path), (folder, folder)):
            (place / ".git").mkdir()
            assert Path(read(GOOD).golden_store) == store / "golden", "inside the repository of the matrix"

    def test_is_relative_to_the_file_not_to_where_one_stands(
        self, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written = Path(read(top('golden_store = "../kept/here"')).path)
        monkeypatch.chdir(written.parent)
        for path in (written, Path(written.name)):
            assert read_matrix(path).golden_store == str(tmp_path / "kept" / "here")

    def test_may_be_anywhere(self, read: Read) -> None:
        assert read(top('golden_store = "/srv/golden"')).golden_store == "/srv/golden"


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "x" * 10_000,
        "<script>alert('&')</script>",
        "a fox \U0001f98a under \u2028 a moon",
        "../../etc/passwd C:\\windows",
        "two\nlines\tand \x1b[31m red",
        "{{ jinja }} %s $HOME `ls` [bold]",
    ],
    ids=["empty", "long", "html", "emoji", "paths", "controls", "templates"],
)
def test_prompts_are_any_text_and_never_part_of_a_path(read: Read, prompt: str) -> None:
    (only,) = read(
        GOOD.replace('"a red ball"', json.dumps(prompt, ensure_ascii=False).replace("\x1b", "\\u001b"))
    ).cases
    assert only.prompts == (prompt,)
    assert re.fullmatch(r"64x64-[0-9a-f]{8}", only.key)


class TestByNow:
    """A matrix as a run folder remembers it, and what its file holds by now."""

    def test_a_pin_that_was_written_after_the_run(self, read: Read, tmp_path: Path) -> None:
        then = read(GOOD)
        assert current_pin(then) is None
        pin = "sha256:" + "0" * 64
        read(f'golden_digest = "{pin}"\n{GOOD}')
        assert current_pin(then) == pin
        Path(then.path).write_text("[[case", encoding="utf-8")
        assert current_pin(then) is None
        assert current_pin(replace(then, path=str(tmp_path / "none.toml"))) is None

    def test_goldens_are_where_they_were_or_where_the_file_that_is_here_has_them(
        self, read: Read, tmp_path: Path
    ) -> None:
        here = read(GOOD)
        moved = replace(here, golden_store="/there/golden")
        assert current_store(moved) == str(tmp_path / "golden")
        assert current_store(replace(moved, path="/there/m.toml")) == "/there/golden"
        assert current_store(replace(moved, golden_store=str(tmp_path))) == str(tmp_path)


def test_two_prompts_are_two_keys(read: Read) -> None:
    first, second = (read(GOOD.replace("ball", what)).cases[0].key for what in ("ball", "cube"))
    assert first != second


@pytest.mark.parametrize(
    ("text", "begins", "cure"),
    [
        # The file as a whole.
        ("this is no TOML", "is no valid TOML", "line 1"),
        ("steps = \n" + GOOD, "is no valid TOML", "line 1"),
        ("seed = " + "1" * 5000 + GOOD, "is no valid TOML", "too long|limit"),
        ("", "no case", "[[case]]"),
        ('model = "fake"\n[[variant]]\nengine = "fake"', "no case", "[[case]]"),
        (GOOD.split("[[variant]]")[0], "no variant", "[[variant]]"),
        ('[case]\nsize = "64x64"', "case", "write [[case]], with two brackets"),
        ('variant = "fake"', "variant", "write [[variant]], with two brackets"),
        ("bound = [1]", "bound[1]", "write [[bound]], with two brackets"),
        (top("schema = 2"), "schema: 2 is newer than 1", "update sp-harness"),
        (top('schema = "1"'), "schema: '1'", "1"),
        (top("schema = 0"), "schema: 0", "1"),
        # Unknown keys.
        (top("sede = 1"), "sede: unknown key", "did you mean 'seed'?"),
        (top("variants = 1"), "variants: unknown key", "did you mean 'variant'?"),
        (top('"two\\nlines" = 1'), '"two\\nlines": unknown key', "known: "),
        (case("promt = 'x'"), "case[1].promt: unknown key", "did you mean 'prompt'?"),
        (case("strength = 1"), "case[1].strength: unknown key", "known: "),
        (case("int = 1"), "case[1].int: unknown key", "known: "),
        (variant("optoins = {}"), "variant[1].optoins: unknown key", "did you mean 'options'?"),
        (bound("at_last = 1"), "bound[1].relation: is missing", "write relation ="),
        (
            bound("relation='pair'\nmetric='psnr'\nat_last=1"),
            "bound[1].at_last: unknown key",
            "did you mean 'at_least'",
        ),
        # Unknown words.
        (GOOD.replace('engine = "fake"', 'engine = "fakir"'), "variant[1].engine", "did you mean 'fake'?"),
        (top('metrics = ["psnr", "simm"]'), "metrics[2]: there is no metric 'simm'", "did you mean 'ssim'?"),
        (bound("relation='pair'\nmetric='psn'\nat_least=1"), "bound[1].metric", "did you mean 'psnr'?"),
        (bound("relation='pear'\nmetric='psnr'\nat_least=1"), "bound[1].relation: 'pear'", "did you mean 'pair'?"),
        (
            bound("relation='pair'\nmetric='psnr'\nat_least=1\ndomain='latent'"),
            "bound[1].domain: 'latent'",
            "did you mean 'latents'?",
        ),
        (variant('axis = "hh"'), "variant[1].axis: 'hh'", "h"),
        (variant('axis = "x"'), "variant[1].axis: 'x'", "known: auto, h, none, w"),
        (variant('axis = ["auto", "x"]'), "variant[1].axis[2]: 'x'", "known: auto, h, none, w"),
        (variant('layout = "exakt"'), "variant[1].layout: 'exakt'", "did you mean 'exact'?"),
        (variant('cache = "cachedit"'), "variant[1].cache: 'cachedit'", "did you mean 'cache-dit'?"),
        (top('device = "gpu"'), "device: 'gpu'", "did you mean 'cpu'?"),
        (top('dtype = "fp16"'), "dtype: 'fp16'", "float16"),
        (top('golden = "requried"'), "golden: 'requried'", "did you mean 'required'?"),
        # Sizes.
        (sized('"64"'), "case[1].size: size '64' is not WIDTHxHEIGHT", "'720x1280'"),
        (sized('""'), "case[1].size: size '' is not WIDTHxHEIGHT", "'720x1280'"),
        (sized('"64 x 64"'), "case[1].size: size '64 x 64' is not WIDTHxHEIGHT", "'720x1280'"),
        (sized('"720x1279"'), "case[1].size: size '720x1279'", "the nearest is 1280"),
        (sized('"0x64"'), "case[1].size: size '0x64'", "the nearest is 16"),
        (sized('["64x64", "65x64"]'), "case[1].size: size '65x64'", "the nearest is 64"),
        (sized("64"), "case[1].size: 64", "valid string"),
        (sized("[64, 64]"), "case[1].size[1]: 64", "valid string"),
        (sized("[]"), "case[1].size: []", "at least 1 item"),
        # Degrees.
        (degree("0"), "variant[1].ulysses: 0", "greater than or equal to 1"),
        (degree("-2"), "variant[1].ulysses: -2", "greater than or equal to 1"),
        (degree("2.0"), "variant[1].ulysses: 2.0", "valid integer"),
        (degree('"2"'), "variant[1].ulysses: '2'", "valid integer"),
        (degree("true"), "variant[1].ulysses: True", "valid integer"),
        (degree("[]"), "variant[1].ulysses: []", "at least 1 item"),
        (degree("[2, 0]"), "variant[1].ulysses[2]: 0", "greater than or equal to 1"),
        (variant("ring = 0"), "variant[1].ring: 0", "greater than or equal to 1"),
        (variant("ring = 1.5"), "variant[1].ring: 1.5", "valid integer"),
        (variant("axis = []"), "variant[1].axis: []", "auto, h"),
        # Missing and doubled.
        (GOOD.replace('model = "fake"', ""), "case[1].model: is missing", 'write model = "nano"'),
        (GOOD.replace('prompt = "a red ball"', ""), "case[1].prompt: is missing", "write prompt ="),
        (GOOD.replace('size = "64x64"', ""), "case[1].size: is missing", "write size ="),
        (GOOD.replace('engine = "fake"', ""), "variant[1].engine: is missing", "write engine ="),
        (sized('["64x64", "64x64"]'), "case[1]: draws the same as case[1]", "remove one"),
        (
            case('[[case]]\nsize = "64x64"\nprompt = "a red ball"\nname = "b"'),
            "case[2]: draws the same as case[1]",
            "rem",
        ),
        (
            case('[[case]]\nsize = "64x64"\nprompt = "a cube"'),
            "case[2]: is called '64x64' as is case[1]",
            'add name = "',
        ),
        (variant('[[variant]]\nengine = "fake"\nulysses = 2'), "variant[2]", "in variant[1] too"),
        (variant('[[variant]]\nengine = "fake"\nulysses = 2\nrequired = false'), "variant[2]", "make them one"),
        # Guidance.
        (case('negative_prompt = "blurred"'), "case[1].negative_prompt: has no effect", "set guidance_scale above 0"),
        (case('guidance_scale = 2\nnegative_prompt = ["a", "b"]'), "case[1].negative_prompt: 2 for 1", "give one"),
        (case("guidance_scale = -1"), "case[1].guidance_scale: -1", "greater than or equal to 0"),
        # Bounds.
        (bound("relation='pair'\nmetric='psnr'"), "bound[1]", "at_least = ... or at_most = ..."),
        (bound("relation='pair'\nmetric='psnr'\nat_least=1\nat_most=2"), "bound[1]", "either at_least"),
        (bound("relation='pair'\nmetric='ssim'\nat_least=0.9"), "bound[1].domain: ssim", "'image'"),
        (bound("relation='pair'\nmetric='psnr'\nat_least=inf"), "bound[1].at_least: inf", "finite"),
        # Cases a variant names.
        (variant('cases = ["64x63"]'), "variant[1].cases: no case is called '64x63'", "did you mean '64x64'?"),
        (variant("cases = []"), "variant[1].cases: []", "at least 1 item"),
        (variant('cases = "64x64"'), "variant[1].cases: '64x64'", "valid list"),
        # Values of another type, or out of range.
        (top('steps = "4"'), "steps: '4'", "valid integer"),
        (top("steps = 0"), "steps: 0", "greater than or equal to 1"),
        (top("steps = true"), "steps: True", "valid integer"),
        (top("seed = -1"), "seed: -1", "greater than or equal to 0"),
        (top("timeout_s = 0"), "timeout_s: 0", "greater than 0"),
        (top("timeout_s = inf"), "timeout_s: inf", "finite"),
        (top("timeout_s = nan"), "timeout_s: nan", "finite"),
        (top('metrics = "psnr"'), "metrics: 'psnr'", "valid list"),
        (top('name = "a/b"'), "name: 'a/b'", "match pattern"),
        (top('golden_store = ""'), "golden_store: ''", "at least 1 character"),
        (case('name = "../up"'), "case[1].name: '../up'", "match pattern"),
        (case('sequence = "a/b"'), "case[1].sequence: 'a/b'", "match pattern"),
        (case("num_images_per_prompt = 0"), "case[1].num_images_per_prompt: 0", "greater than or equal to 1"),
        (case("seed = 1979-05-27"), "case[1].seed: datetime.date(1979, 5, 27)", "valid integer"),
        (GOOD.replace('"a red ball"', "5"), "case[1].prompt: 5", "valid string"),
        (GOOD.replace('"a red ball"', "[]"), "case[1].prompt: []", "at least 1 item"),
        (GOOD.replace('"a red ball"', '["a", 5]'), "case[1].prompt[2]: 5", "valid string"),
        (GOOD.replace('model = "fake"', 'model = ""'), "model: ''", "at least 1 character"),
        (variant('required = "no"'), "variant[1].required: 'no'", "valid boolean"),
        (variant("options = { step_s = [1] }"), "variant[1].options.step_s: [1]", "valid"),
        (variant("options = { step_s = inf }"), "variant[1].options.step_s: inf", "finite"),
    ],
)
def test_what_is_wrong_is_named_with_its_cure(
    complain: Callable[[str], str], text: str, begins: str, cure: str
) -> None:
    message = complain(text)
    assert message.startswith(begins)
    rest = message.removeprefix(begins)
    assert any(word in rest for word in cure.split("|")), message


def test_a_long_value_is_cut_short(complain: Callable[[str], str]) -> None:
    assert len(complain(top('dtype = "' + "x" * 5000 + '"'))) < 250


class TestFilesThatCannotBeRead:
    @staticmethod
    def complaint(path: Path) -> str:
        with pytest.raises(ConfigError) as error:
            read_matrix(path)
        assert len(str(error.value).splitlines()) == 1
        return str(error.value)

    def test_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "pr.toml"
        message = self.complaint(path)
        assert message.startswith(f"{path}: cannot be read (No such file or directory)")
        assert "matrices/pr.toml" in message

    def test_a_folder(self, tmp_path: Path) -> None:
        assert self.complaint(tmp_path).startswith(f"{tmp_path}: cannot be read (Is a directory)")

    def test_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / "latin.toml"
        path.write_bytes('name = "größe"'.encode("latin-1"))
        assert self.complaint(path).startswith(f"{path}: cannot be read (it is no UTF-8 text)")


def test_every_engine_and_metric_there_is_can_be_named(read: Read) -> None:
    metrics: list[Any] = plugins.names("metrics")
    assert read(top(f"metrics = {json.dumps(metrics)}")).metrics == tuple(metrics)
    for engine in plugins.names("engines"):
        assert read(GOOD.replace('engine = "fake"', f'engine = "{engine}"')).variants[0].engine == engine
