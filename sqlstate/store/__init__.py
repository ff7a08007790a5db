"""An open store: collections, transactions, snapshots, batches. Start reading at `opening`."""
