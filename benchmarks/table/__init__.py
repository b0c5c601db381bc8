"""The table: one measurement an id. Each takes `Asked` and gives the fields of its line."""
