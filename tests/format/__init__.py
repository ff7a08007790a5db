"""The bytes: values, names, records and the tree's definition."""
