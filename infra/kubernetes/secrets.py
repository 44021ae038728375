"""The secrets: API keys for the gateway, the Hugging Face token for the engine."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pulumi
import pulumi_random
from pulumi_kubernetes import core

from infra.kubernetes.pods import COMPONENTS, Labels

API_KEYS_NAME = "api-keys"
API_KEYS_FILE = "keys.json"
HF_TOKEN_NAME = "hugging-face"  # noqa: S105 - the name of a Secret
HF_TOKEN_KEY = "token"  # noqa: S105 - the name of its entry
GENERATED_KEY_LENGTH = 48


@dataclass(frozen=True)
class SecretsArgs:
    """``keys_document``: the API keys that the settings give, a secret; None: one is generated. ``hf_token``: None: there is none."""

    namespace: pulumi.Input[str]
    labels: Labels
    keys_document: pulumi.Output[str] | None
    hf_token: pulumi.Output[str] | None


class Secrets(pulumi.ComponentResource):
    """The Secrets of one stack.

    Their names never change, so that a running gateway receives new keys through its mounted file, without a restart.
    ``hf_token_name`` is None if no token is set.
    """

    api_keys_name: pulumi.Output[str]
    hf_token_name: pulumi.Output[str] | None

    def __init__(self, name: str, args: SecretsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(f"{COMPONENTS}:Secrets", name, None, opts)
        children = pulumi.ResourceOptions(parent=self)
        if args.keys_document is not None:
            document = args.keys_document
        else:
            made = pulumi_random.RandomPassword(
                f"{name}-default-key", length=GENERATED_KEY_LENGTH, special=False, opts=children
            )
            document = made.result.apply(lambda text: json.dumps({"default": f"sk-{text}"}))
        keys = core.v1.Secret(
            f"{name}-{API_KEYS_NAME}",
            metadata=args.labels.metadata("gateway", args.namespace, name=API_KEYS_NAME),
            string_data={API_KEYS_FILE: document},
            opts=children,
        )
        self.api_keys_name = keys.metadata.apply(lambda metadata: str(metadata.name))
        self.hf_token_name = None
        if args.hf_token is not None:
            secret = core.v1.Secret(
                f"{name}-{HF_TOKEN_NAME}",
                metadata=args.labels.metadata("engine", args.namespace, name=HF_TOKEN_NAME),
                string_data={HF_TOKEN_KEY: args.hf_token},
                opts=children,
            )
            self.hf_token_name = secret.metadata.apply(lambda metadata: str(metadata.name))
        self.register_outputs({"api_keys_name": self.api_keys_name})
