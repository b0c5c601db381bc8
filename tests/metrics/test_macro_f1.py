from tunewright.metrics.macro_f1 import MacroF1
from tunewright.testing.metric_contract import MetricContract


class TestMacroF1(MetricContract):
    metric = MacroF1()
