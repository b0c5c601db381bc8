from tunewright.metrics.macro_precision import MacroPrecision
from tunewright.testing.metric_contract import MetricContract


class TestMacroPrecision(MetricContract):
    metric = MacroPrecision()
