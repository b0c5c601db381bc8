"""Neutral options that every objective shares: noise, two passes that must agree, weights held near the base, an order of rows.

`settings` says what they are. None of them is a part of an objective: noise and agreement stand around its loss (`around_loss`),
what holds weights near the base adds to the gradients of a step (`anchors`), and an order belongs to the plan (`curriculum`). The
package itself loads no torch.
"""
