"""How data flows: inputs are listed, planned into shards, decoded, predicted and committed, in Ray Data."""
