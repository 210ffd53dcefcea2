"""The SP system under test: Z-Image, cut along the height or width of the picture."""
