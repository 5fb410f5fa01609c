"""Generated from protos/wavserve/v1 by `make protos`; not edited by hand."""
