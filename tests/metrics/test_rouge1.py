from tunewright.metrics.rouge1 import Rouge1
from tunewright.testing.metric_contract import MetricContract


class TestRouge1(MetricContract):
    metric = Rouge1()
