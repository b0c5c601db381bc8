from tunewright.metrics.bleu import Bleu
from tunewright.testing.metric_contract import MetricContract


class TestBleu(MetricContract):
    metric = Bleu()
