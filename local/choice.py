"""Chooses the model to serve: the stack's own, a small real one, or the stand-in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import UserError
from infra.planning import make_plan
from infra.planning.catalog.model_repository import UnknownModelError
from infra.planning.catalog.sources import config_reader, fetch_config, hub_environment
from infra.planning.plan import ServingPlan
from infra.stack_files import load_stack, parse_overrides
from local import folders, weights
from local.arguments import kept_on
from local.banner import smaller_line, stand_in_line
from local.failures import LocalError
from local.machine import Machine
from local.options import Options
from local.progress import Progress
from local.stand_in import make_stand_in

# Settings that apply only to the stack's own model.
OF_THE_STACKS_MODEL: Mapping[str, Any] = {
    "modelRevision": "", "servedModelName": "", "maxModelLen": 0, "quantization": "", "speculative": "",
    "loraAdapters": [], "toolCallParser": "", "reasoningParser": "", "tokenizerMode": "", "baseModel": "", "engineArgs": [],
    "weightsGib": 0, "kvBytesPerToken": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """A model in a folder, and the plan to serve it with."""

    plan: ServingPlan
    folder: Path
    deployed_image: str
    stand_in_because: str = ""
    """Why the stand-in is served; empty for a real model."""
    note: str = ""
    """A line for the user if the model is not the stack's own."""


def planned(options: Options, progress: Progress) -> ServingPlan:
    """The stack's plan with the settings of this run. Raises LocalError."""
    progress.phase("model", f"planning {options.stack}")
    try:
        plan = _make(options, {"model": options.model} if options.model else {}, progress)
    except UserError as error:
        raise LocalError(str(error)) from None
    for warning in plan.warnings:
        progress.say(f"  plan: {warning}")
    return plan


def _make(options: Options, overrides: Mapping[str, Any], progress: Progress) -> ServingPlan:
    def fetch(model: str, revision: str) -> Mapping[str, Any]:
        here = weights.is_here(model, revision)
        try:
            return fetch_config(str(weights.folder_of(model, revision)), "") if here else read(model, revision)
        except UnknownModelError as error:
            planned_as_base = settings.base_model and model == settings.model
            if here or planned_as_base or weights.hub_is_reachable(hub_environment(settings, os.environ)):
                raise
            progress.say(f"  plan: {error}: planned with the stand-in's figures")
            return weights.read_config(make_stand_in(folders.MODELS))

    given = parse_overrides(options.settings, options.stack)
    settings = load_stack(options.stack, {**given, **overrides})
    read = config_reader(settings)
    return make_plan(settings, fetch=fetch)


def choose(plan: ServingPlan, machine: Machine, options: Options, python: Path, progress: Progress) -> Choice:
    """The stack's model if this machine can download and run it, else a small real one, else the stand-in.

    Raises:
        LocalError: WEIGHTS=real, and the weights are not available.
    """
    progress.phase("model", plan.model)
    image = plan.engine.image
    too_large = weights.problem(plan, machine) if options.weights == "auto" else None
    because = "WEIGHTS=stand-in" if options.weights == "stand-in" else too_large
    if because is None:
        because = _fetched(plan, machine, python, progress)
    if because is None:
        return Choice(plan, weights.folder_of(plan.model, plan.model_revision), image)
    if options.weights == "real":
        raise LocalError(
            f"the weights of {plan.model} are not available: {because}. Leave out WEIGHTS=real to use a stand-in"
        )
    if too_large and (small := _smaller(plan, machine, options, progress)):
        note = smaller_line(small.model, plan.model, too_large)
        progress.say(note)
        if _fetched(small, machine, python, progress) is None:
            return Choice(small, weights.folder_of(small.model, small.model_revision), image, note=note)
    note = stand_in_line(plan.model, because)
    progress.say(note)
    return Choice(plan, make_stand_in(folders.MODELS, plan.architecture.sees), image, because, note)


def _fetched(plan: ServingPlan, machine: Machine, python: Path, progress: Progress) -> str | None:
    """Download the weights; returns the reason if that failed, or None."""
    arguments = kept_on(machine, plan)
    if weights.is_here(plan.model, plan.model_revision):
        if weights.others_are_here(plan, arguments):
            return None
        return weights.fetch(plan, python, progress, arguments)
    environment = weights.hub_environment(plan)
    problem = weights.hub_problem(plan.model, plan.model_revision, environment)
    return problem or weights.fetch(plan, python, progress, arguments)


def _smaller(plan: ServingPlan, machine: Machine, options: Options, progress: Progress) -> ServingPlan | None:
    """The plan for the small model; None if it cannot replace the stack's model or run on this machine."""
    if plan.architecture.sees or plan.model == weights.SMALL_MODEL:
        return None  # it is a text-only model; the stand-in supports vision
    try:
        small = _make(options, {**OF_THE_STACKS_MODEL, "model": weights.SMALL_MODEL}, progress)
    except UserError:
        return None
    here = weights.is_here(small.model, small.model_revision)
    if weights.problem(small, machine) or not (
        here or weights.hub_problem(small.model, small.model_revision, weights.hub_environment(small)) is None
    ):
        return None
    return small
