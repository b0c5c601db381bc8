from tunewright.metrics.accuracy import Accuracy
from tunewright.testing.metric_contract import MetricContract


class TestAccuracy(MetricContract):
    metric = Accuracy()
