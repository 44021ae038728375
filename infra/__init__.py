"""The Pulumi program: settings -> plan -> target."""

from infra.interrupts import quiet_while_importing

quiet_while_importing()
