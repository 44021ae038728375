"""What Pulumi runs for PulumiPlugin.yaml: the components, for programs in any language."""

from infra.plugin import main

if __name__ == "__main__":
    main()
