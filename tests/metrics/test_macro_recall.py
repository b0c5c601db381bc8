from tunewright.metrics.macro_recall import MacroRecall
from tunewright.testing.metric_contract import MetricContract


class TestMacroRecall(MetricContract):
    metric = MacroRecall()
