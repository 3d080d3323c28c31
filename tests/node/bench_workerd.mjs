// The benchmarks' peer on workerd. All sessions are in one Durable Object, because a socket belongs to the request or
// the object that made it, and subscribers are heard by others than they. Files are written by workerd's disk service.
import { newWorkersWebSocketRpcResponse } from "capnweb";
import { isAuthorized, keepIn, ShareRpc } from "bench_share";

export class Shares {
  constructor(_state, environment) {
    const file = (id) => `http://disk/${id}.json`;
    const checked = async (answer) => {
      if (!answer.ok) throw new Error(`the disk answered ${answer.status}`);
      return answer;
    };
    keepIn({
      read: async (id) => (await checked(await environment.disk.fetch(file(id)))).text(),
      write: async (id, text) => {
        await checked(await environment.disk.fetch(file(id), { method: "PUT", body: text }));
      },
    });
  }

  fetch(request) {
    return newWorkersWebSocketRpcResponse(request, new ShareRpc());
  }
}

export default {
  fetch(request, environment) {
    if (!isAuthorized(request.headers.get("authorization"))) return new Response(null, { status: 401 });
    return environment.shares.get(environment.shares.idFromName("all")).fetch(request);
  },
};
