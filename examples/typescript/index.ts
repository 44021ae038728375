// A vLLM endpoint in a VPC made by awsx. `pulumi install` generates @pulumi/vllm-endpoint from the package in Pulumi.yaml.
import * as awsx from "@pulumi/awsx";
import { VllmEndpoint } from "@pulumi/vllm-endpoint";

const network = new awsx.ec2.Vpc("llm", { numberOfAvailabilityZones: 2 });

const chat = new VllmEndpoint("chat", {
    model: "Qwen/Qwen3-4B-Instruct-2507",
    gpu: "a10g",
    minReplicas: 0,
    vpcId: network.vpcId,
    subnetIds: network.privateSubnetIds,
});

export const url = chat.openaiBaseUrl;
export const keySecret = chat.apiKeysSecretArn;
export const usdPerHour = chat.usdPerHourActive;
