from tunewright.metrics.chrf import Chrf
from tunewright.testing.metric_contract import MetricContract


class TestChrf(MetricContract):
    metric = Chrf()
