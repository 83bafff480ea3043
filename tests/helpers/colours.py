"""How colours look: luminance, CIELAB, and the two common kinds of colour blindness."""

import numpy

# Machado, Oliveira and Fernandes, 2009, table 1, severity 1.0; of linear RGB
DEUTERANOPIA = numpy.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
PROTANOPIA = numpy.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
)
TO_XYZ = numpy.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = TO_XYZ.sum(1)


def linear(colour) -> numpy.ndarray:
    """Linear RGB of an sRGB colour, both (3,) in 0..1."""
    value = numpy.asarray(colour[:3], float)
    return numpy.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def luminance(colour) -> float:
    """The relative luminance of an sRGB colour."""
    return float((TO_XYZ @ linear(colour))[1])


def lab(colour: numpy.ndarray) -> numpy.ndarray:
    """CIELAB of a colour (3,) in linear RGB."""
    share = TO_XYZ @ numpy.clip(colour, 0, 1) / WHITE
    root = numpy.where(share > 0.008856, numpy.cbrt(share), 7.787 * share + 16 / 116)
    return numpy.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])
