"""Judge audits: the same rows judged by people and by models, and what their difference means."""
