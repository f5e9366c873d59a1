"""Re-exports what the service takes from the client: rules that both must apply in the same way.

`headstart_service` imports `headstart.v1`, the public names of `headstart`, and this module. An
import-linter contract refuses every other private module, so those may change freely.
"""

from headstart._errors import from_rpc_error
from headstart._errors.suggestions import (
    did_you_mean,
    not_one_of,
    suggested,
    unknown_among,
    with_suggestion,
)
from headstart._messages.artifacts import artifact_mistakes, tensor_from
from headstart._messages.convert import pipeline_from, results_from
from headstart._messages.inputs import INPUTS, InputsError, inputs_of, read_inputs, write_inputs
from headstart._messages.json_text import MAX_DEPTH, MAX_DIGITS, NotJson, parse_json
from headstart._messages.pipeline_run import PipelineRun, StepValues
from headstart._messages.result_parts import BRIDGING_FIELDS, Changes, only_results
from headstart._messages.tensors import DTYPES
from headstart._transport.addresses import DEFAULT_PORT, target_of
from headstart._transport.endpoint import Endpoint, default_address, endpoint
from headstart._transport.loopback import is_loopback
from headstart._transport.security import tls_from, token_from_environment

__all__ = [
    "BRIDGING_FIELDS",
    "DEFAULT_PORT",
    "DTYPES",
    "INPUTS",
    "MAX_DEPTH",
    "MAX_DIGITS",
    "Changes",
    "Endpoint",
    "InputsError",
    "NotJson",
    "PipelineRun",
    "StepValues",
    "artifact_mistakes",
    "default_address",
    "did_you_mean",
    "endpoint",
    "from_rpc_error",
    "inputs_of",
    "is_loopback",
    "not_one_of",
    "only_results",
    "parse_json",
    "pipeline_from",
    "read_inputs",
    "results_from",
    "suggested",
    "target_of",
    "tensor_from",
    "tls_from",
    "token_from_environment",
    "unknown_among",
    "with_suggestion",
    "write_inputs",
]
