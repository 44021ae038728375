"""The API keys and the Hugging Face token, each in a separate Secrets Manager secret."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
import pulumi_random as random

from infra.aws.context import Context

KEY_CHARACTERS = 43  # letters and digits; 256 bits of entropy
RECOVERY_DAYS = 7


@dataclass(frozen=True)
class SecretsArgs:
    """The secret values, and how they are stored.

    Attributes:
        context: account, region, names and tags.
        keys_document: the API keys from the stack file, a Pulumi secret; None: one key, named ``default``, is generated,
            and ``make key`` manages the secret's value from then on.
        hf_token: the Hugging Face token, a Pulumi secret; None: no secret is created for it.
        kms_key_arn: key that encrypts the secrets; empty: the AWS managed key.
        retain: whether a deleted secret can be restored during a recovery window.
    """

    context: Context
    keys_document: pulumi.Output[str] | None
    hf_token: pulumi.Output[str] | None
    kms_key_arn: pulumi.Input[str]
    retain: bool


class Secrets(pulumi.ComponentResource):
    """The stack's secrets.

    Attributes:
        api_keys_arn: secret with the keys document, in the gateway's format.
        hf_token_arn: secret with the token as plain text, or None.
        hf_token_version: AWS's id of the token's current version, or None; it changes with the token and does not reveal it.
    """

    def __init__(self, name: str, args: SecretsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("vllm:aws:Secrets", name, None, opts)
        self._name, self._args = name, args
        given = args.keys_document is not None
        self.api_keys_arn, _ = self._secret(
            "api-keys",
            "API keys of the gateway, in the format of docs/keys.md",
            args.keys_document if args.keys_document is not None else self._generated(),
            seed=not given,
        )
        self.hf_token_arn: pulumi.Output[str] | None = None
        self.hf_token_version: pulumi.Output[str] | None = None
        if args.hf_token is not None:
            self.hf_token_arn, self.hf_token_version = self._secret(
                "hub-token", "Hugging Face token for gated models", args.hf_token
            )
        self.register_outputs({"apiKeysArn": self.api_keys_arn})

    def _generated(self) -> pulumi.Output[str]:
        password = random.RandomPassword(
            f"{self._name}-api-key", length=KEY_CHARACTERS, special=False, opts=pulumi.ResourceOptions(parent=self)
        )
        return password.result.apply(lambda text: json.dumps({"default": f"sk-{text}"}))

    def _secret(
        self, suffix: str, description: str, text: pulumi.Output[str], *, seed: bool = False
    ) -> tuple[pulumi.Output[str], pulumi.Output[str]]:
        """The ARN and the version id. ``seed``: the text is only the initial value; later changes outside Pulumi persist.

        A task cannot start before the secret has a value, so everything that reads a secret depends on this component. It
        does not use the ARN of the version, because a new value would then look like a new ARN.
        """
        name, child = f"{self._name}-{suffix}", pulumi.ResourceOptions(parent=self)
        secret = aws.secretsmanager.Secret(
            name,
            description=description,
            kms_key_id=self._args.kms_key_arn or None,
            recovery_window_in_days=RECOVERY_DAYS if self._args.retain else 0,
            tags=self._args.context.tags("secrets", name),
            opts=child,
        )
        hidden: pulumi.Output[str] = pulumi.Output.secret(text)
        version = aws.secretsmanager.SecretVersion(
            name,
            secret_id=secret.id,
            secret_string=hidden,
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["secretString"] if seed else None),
        )
        return secret.arn, version.id
