"""Which upstream answers: what there is, how it fares, and who is picked."""
