"""How the embedded model ``nano`` was made: scenes, autoencoder, transformer, export.

An extra beside the package: ``harness`` never imports it. ``python -m train --help`` lists the steps and
``train/README.md`` says how they belong together.
"""
