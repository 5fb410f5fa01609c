"""Runners: each turns a call's inputs into outputs with one model. Also the code that loads and hosts a runner."""
