"""A small bitmap alphabet: text of seven pixels height that stays readable on a 320×256 picture.

Outline fonts, drawn at that size, dissolve into grey; these glyphs were made for the pixel grid and are
enlarged by whole factors only. Capitals only: lower-case letters are set as capitals.
"""

from __future__ import annotations

from functools import cache

import numpy as np

HEIGHT = 7
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
    """Character -> (7, w) bool."""
    glyphs = {" ": np.zeros((HEIGHT, 2), bool)}
    for block in _ALPHABET.strip().split("\n\n"):
        names, *rows = (line.split() for line in block.splitlines())
        for name, *lines in zip(names, *rows, strict=True):
            glyphs[name] = np.array([[mark == "#" for mark in line] for line in lines])
    return glyphs


@cache
def _glyph(character: str, scale: int) -> np.ndarray:
    """(7 scale, w scale) bool, with an empty column on its right; '?' stands for unknown characters."""
    glyphs = _glyphs()
    glyph = glyphs.get(character.upper(), glyphs["?"])
    return np.pad(glyph, ((0, 0), (0, 1))).repeat(scale, 0).repeat(scale, 1)


def letter(text: str, *, scale: int = 1) -> np.ndarray:
    """Set `text` in one line: (7 scale, width) bool, true on the strokes; (7 scale, 0) for no text.

    Characters outside the alphabet become question marks.
    """
    if not text:
        return np.zeros((HEIGHT * scale, 0), bool)
    return np.concatenate([_glyph(character, scale) for character in text], axis=1)[:, :-scale]
