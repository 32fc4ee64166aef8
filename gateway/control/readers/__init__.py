"""Everything that follows the journal: each reader has a cursor of its own and never hurries or stops another."""
