import { Instance } from "@/project/instance";

export namespace Bus {
  export interface Definition<Properties> {
    readonly type: string;
    readonly properties?: Properties;
  }
  // As opencode has it: whoever listens to everything is not told its type.
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  type Subscription = (event: any) => void;

  const state = Instance.state(() => new Map<string, Subscription[]>());

  export async function publish<Properties>(def: Definition<Properties>, properties: Properties) {
    const event = { type: def.type, properties };
    const told = [def.type, "*"].flatMap((type) => state().get(type) ?? []);
    await Promise.all(told.map((each) => each(event)));
  }

  export function subscribe<Properties>(
    def: Definition<Properties>,
    callback: (event: { type: string; properties: Properties }) => void,
  ) {
    return raw(def.type, callback);
  }

  export function subscribeAll(callback: Subscription) {
    return raw("*", callback);
  }

  function raw(type: string, callback: Subscription): () => void {
    const subscriptions = state();
    subscriptions.set(type, [...(subscriptions.get(type) ?? []), callback]);
    return () => void subscriptions.set(type, (subscriptions.get(type) ?? []).filter((each) => each !== callback));
  }
}
