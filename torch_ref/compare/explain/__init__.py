"""What a wrong gradient looks like, in one sentence: hypotheses tested against every number.

    Evidence -> Question -> hypotheses, simplest first (catalogue.py) -> Explanation

constants.py, sizes.py      a constant or a tensor size times the truth; no number; the same number
paths.py                    a missing, doubled, subtracted, surviving-alone or wrong path
products.py                 a product with a factor missing, extra or exchanged (ratios.py, forms.py
                            elementwise, contractions.py with a sum in it)
axes.py, reductions.py      transposed, flipped, shifted; sums and means left out or cut short
additions.py, clipping.py   an extra term; a clipped number
places.py, conditions.py    wrong exactly where a condition on a named quantity holds
"""

from torch_ref.compare.explain.catalogue import explain
from torch_ref.compare.explain.evidence import Evidence, Explanation

__all__ = ["Evidence", "Explanation", "explain"]
