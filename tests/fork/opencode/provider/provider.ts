export namespace Provider {
  export interface Model {
    id: string;
    providerID: string;
    name: string;
    limit: { context: number; output: number };
  }

  export async function getModel(providerID: string, modelID: string): Promise<Model> {
    if (modelID === "gone") throw new Error(`ProviderModelNotFoundError: ${providerID}/${modelID}`);
    return { id: modelID, providerID, name: modelID, limit: { context: 200_000, output: 8_192 } };
  }
}
