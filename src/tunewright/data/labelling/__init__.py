"""Weak supervision: rules that vote on rows, what their votes are worth, and labels made of them, without torch.

`rules` reads labelling functions from YAML, `functions` from a Python file; `votes` asks them about every row; `analysis` counts
coverage, overlaps and conflicts; `label_model` estimates how accurate each one is from how they agree, and turns votes into
probabilities. `tunewright.run.labelling` does all of it in order.

Source: Ratner et al. 2016, "Data programming: creating large training sets, quickly", arXiv 1605.07723.
"""

from tunewright.data.labelling.functions import LabellingFunction, labelling_function

__all__ = ["LabellingFunction", "labelling_function"]
