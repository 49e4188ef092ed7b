"""The hops: a task beside the nano world on which a thought helps, with its corpora and its teacher."""
