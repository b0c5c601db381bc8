"""What may be said about a measured number: intervals, paired tests, confusion. A sub-package, so that no file here is an entry."""
