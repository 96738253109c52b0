"""The embedded model and its scenes: everything boxtune does, with no download and no GPU."""
