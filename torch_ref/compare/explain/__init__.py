"""What a wrong gradient looks like, in one sentence: hypotheses tested against every number.

    Evidence -> Question -> hypotheses, simplest first (catalogue.py) -> Explanation

constants.py, sizes.py      a constant or a tensor size times the truth; no number; the same number
paths.py                    a missing, doubled, subtracted, surviving-alone or wrong path
products.py                 a product with a factor missing, extra or exchanged (ratios.py, forms.py
                            elementwise, contractions.py with a sum in it)
axes.py, wrong_axis.py      transposed, flipped, shifted; a sum or mean over the wrong axis
reductions.py, scatter.py   sums and means left out or cut short; overwritten where it adds up
additions.py, clipping.py   an extra term; a clipped number
differences.py              the loss's own derivative with wrong numbers in it
places.py, conditions.py    wrong exactly where a condition on a named quantity holds
"""

from torch_ref.compare.explain.catalogue import explain
from torch_ref.compare.explain.evidence import Evidence, Explanation

__all__ = ["Evidence", "Explanation", "explain"]
