"""One thread for all tests: results do not depend on the machine, and small tensors are faster so."""

from __future__ import annotations

import torch

from tests.forked import one_server

torch.set_num_threads(1)
one_server()
