"""A bitmap font with glyphs of seven rows, which is readable on images of 320×256 pixels.

Outline fonts blur into grey at this size; these glyphs are aligned to the pixel grid and scaled by integers
only. Lower-case letters are drawn as capitals.
"""

from __future__ import annotations

from functools import cache

import numpy as np

GLYPH_HEIGHT = 7
"""Rows of a glyph at scale 1."""

_ALPHABET = """
0    1   2    3    4    5    6    7    8    9    A    B    C    D    E    F    G    H
.##. .#. .##. ###. #..# #### .##. #### .##. .##. .##. ###. .##. ###. #### #### .##. #..#
#..# ##. #..# ...# #..# #... #... ...# #..# #..# #..# #..# #..# #..# #... #... #..# #..#
#..# .#. ...# ...# #..# #... #... ..#. #..# #..# #..# #..# #... #..# #... #... #... #..#
#.## .#. ..#. .##. #### ###. ###. ..#. .##. .### #### ###. #... #..# ###. ###. #.## ####
##.# .#. .#.. ...# ...# ...# #..# .#.. #..# ...# #..# #..# #... #..# #... #... #..# #..#
#..# .#. #... ...# ...# ...# #..# .#.. #..# ...# #..# #..# #..# #..# #... #... #..# #..#
.##. ### #### ###. ...# ###. .##. .#.. .##. .##. #..# ###. .##. ###. #### #... .### #..#

I   J    K    L    M     N    O    P    Q    R    S    T     U    V     W     X     Y     Z
### ...# #..# #... #...# #..# .##. ###. .##. ###. .### ##### #..# #...# #...# #...# #...# ####
.#. ...# #..# #... ##.## ##.# #..# #..# #..# #..# #... ..#.. #..# #...# #...# #...# #...# ...#
.#. ...# #.#. #... #.#.# ##.# #..# #..# #..# #..# #... ..#.. #..# #...# #...# .#.#. .#.#. ..#.
.#. ...# ##.. #... #.#.# #.## #..# ###. #..# ###. .##. ..#.. #..# #...# #.#.# ..#.. ..#.. .#..
.#. ...# #.#. #... #...# #.## #..# #... #..# #.#. ...# ..#.. #..# .#.#. #.#.# .#.#. ..#.. #...
.#. #..# #..# #... #...# #..# #..# #... #.## #..# ...# ..#.. #..# .#.#. ##.## #...# ..#.. #...
### .##. #..# #### #...# #..# .##. #... .### #..# ###. ..#.. .##. ..#.. #...# #...# ..#.. ####

. : , -   _    +   /    %    #     (  )  ?
. . . ... .... ... ...# #..# .#.#. .# #. .##.
. . . ... .... ... ...# ...# .#.#. #. .# #..#
. # . ... .... .#. ..#. ..#. ##### #. .# ...#
. . . ### .... ### ..#. ..#. .#.#. #. .# ..#.
. # . ... .... .#. .#.. .#.. ##### #. .# .#..
. . # ... .... ... #... #... .#.#. #. .# ....
# . # ... #### ... #... #..# .#.#. .# #. .#..
"""


@cache
def _glyphs() -> dict[str, np.ndarray]:
    """Returns the glyph of each character, (7, w) bool."""
    glyphs = {" ": np.zeros((GLYPH_HEIGHT, 2), bool)}
    for block in _ALPHABET.strip().split("\n\n"):
        names, *rows = (line.split() for line in block.splitlines())
        for name, *lines in zip(names, *rows, strict=True):
            glyphs[name] = np.array([[mark == "#" for mark in line] for line in lines])
    return glyphs


@cache
def _glyph(character: str, scale: int) -> np.ndarray:
    """Returns a glyph followed by an empty column, (7 * scale, w * scale) bool; '?' if it is unknown."""
    glyphs = _glyphs()
    glyph = glyphs.get(character.upper(), glyphs["?"])
    return np.pad(glyph, ((0, 0), (0, 1))).repeat(scale, 0).repeat(scale, 1)


def render_text(text: str, *, scale: int = 1) -> np.ndarray:
    """Renders one line of text: (7 * scale, width) bool, True on the strokes; width is 0 for an empty text.

    Characters that the font lacks become question marks.
    """
    if not text:
        return np.zeros((GLYPH_HEIGHT * scale, 0), bool)
    return np.concatenate([_glyph(character, scale) for character in text], axis=1)[:, :-scale]
