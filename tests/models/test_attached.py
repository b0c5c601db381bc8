from torch import nn

from tunewright.models.attached import Attached, freeze_base


def test_the_base_is_frozen_and_what_is_attached_is_not():
    network = nn.Sequential(nn.Linear(2, 2), nn.Embedding(3, 2))
    attached = Attached()
    attached.scale = nn.Parameter(network[1].weight.detach().clone())
    attached.held = nn.Parameter(network[1].weight.detach().clone(), requires_grad=False)
    network[0].change = attached
    freeze_base(network)
    assert [name for name, parameter in network.named_parameters() if parameter.requires_grad] == ["0.change.scale"]
