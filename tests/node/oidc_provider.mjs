// An OpenID provider for the tests: npm's oidc-provider, and what it says bent on its way out where a test asks.
//
// It prints its issuer. POST /control takes {redirectURIs?, logoutURI?, account?, mode?, rotate?, codeTTL?}.
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";

import * as jose from "jose";
import { Provider } from "oidc-provider";

const CLIENT = "rpcshare";
const SECRET = "a secret of the client: +/=%";
const PEOPLE = {
  alice: { email: "alice@acme.example", email_verified: true, name: "Alice Example", groups: ["staff", "admins"] },
  bob: { email: "bob@acme.example", email_verified: true, name: "Bob Example", groups: ["staff"] },
  carol: { email: "carol@elsewhere.example", email_verified: true, name: "Carol", groups: [] },
  dave: { email: "alice@acme.example", email_verified: false, name: "Not Alice", groups: ["staff"] },
};

const state = { redirectURIs: ["http://127.0.0.1:1/"], logoutURI: "", account: "", mode: "", codeTTL: 60, claims: {} };
const server = createServer();
server.listen(0, "127.0.0.1");
await once(server, "listening");
const issuer = `http://127.0.0.1:${server.address().port}`;

let key, provider, handle;

async function newKey() {
  const pair = await jose.generateKeyPair(process.env.ALG ?? "RS256", { extractable: true });
  const jwk = { ...(await jose.exportJWK(pair.privateKey)), kid: randomUUID(), use: "sig", alg: process.env.ALG ?? "RS256" };
  return { ...pair, jwk };
}

function renew() {
  provider = new Provider(issuer, {
    jwks: { keys: [key.jwk] },
    clients: [{
      client_id: CLIENT, client_secret: SECRET, redirect_uris: state.redirectURIs, grant_types: ["authorization_code"],
      post_logout_redirect_uris: state.redirectURIs.map((uri) => new URL("/sign-in", uri).href),
      ...(state.logoutURI ? { backchannel_logout_uri: state.logoutURI, backchannel_logout_session_required: true } : {}),
      id_token_signed_response_alg: key.jwk.alg,
    }],
    claims: { openid: ["sub", "groups"], email: ["email", "email_verified"], profile: ["name"] },
    conformIdTokenClaims: state.mode !== "in token",
    cookies: { keys: ["one"] },
    features: {
      devInteractions: { enabled: false },
      backchannelLogout: { enabled: true },
      rpInitiatedLogout: { enabled: state.mode !== "no logout" },
    },
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    // It calls no loopback address, so the tests name theirs otherwise.
    fetch: (url, options) => globalThis.fetch(String(url).replace("//rpcshare.test:", "//127.0.0.1:"), { ...options, dispatcher: undefined }),
    pkce: { required: () => true },
    ttl: { AuthorizationCode: state.codeTTL, AccessToken: 60, IdToken: 60, Interaction: 60, Session: 60, Grant: 60 },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...PEOPLE[id], ...state.claims }) }),
  });
  provider.use(async (ctx, next) => {
    if (ctx.path === "/token" && state.mode === "hang") return new Promise(() => {});
    await next();
    if (ctx.path === "/token" && ctx.body?.id_token) ctx.body.id_token = await bent(ctx.body.id_token);
    if (ctx.path === "/me" && state.mode === "other userinfo") ctx.body = { ...ctx.body, sub: "somebody-else" };
    if (ctx.path === "/.well-known/openid-configuration" && state.mode === "other metadata") {
      ctx.body = { ...ctx.body, issuer: "https://other.example" };
    }
  });
  handle = provider.callback();
}

const BENT = {
  issuer: (claims) => ({ ...claims, iss: "https://other.example" }),
  audience: (claims) => ({ ...claims, aud: "another-client" }),
  "audience list": (claims) => ({ ...claims, aud: [CLIENT, "another-client"] }),
  azp: (claims) => ({ ...claims, aud: [CLIENT, "another-client"], azp: "another-client" }),
  nonce: (claims) => ({ ...claims, nonce: "another" }),
  "no nonce": ({ nonce, ...claims }) => claims,
  expired: (claims) => ({ ...claims, exp: claims.iat - 3600 }),
  future: (claims) => ({ ...claims, iat: claims.iat + 3600 }),
  "no expiry": ({ exp, ...claims }) => claims,
  at_hash: (claims) => ({ ...claims, at_hash: "AAAAAAAAAAAAAAAAAAAAAA" }),
  "no subject": ({ sub, ...claims }) => claims,
  "audience of one in a list": (claims) => ({ ...claims, aud: [CLIENT] }),
  "several audiences, ours the party": (claims) => ({ ...claims, aud: [CLIENT, "another-client"], azp: CLIENT }),
  "party that is a list": (claims) => ({ ...claims, azp: [CLIENT] }),
  "skewed": (claims) => ({ ...claims, iat: claims.iat + 30, nbf: claims.iat + 30 }),
};

async function bent(token) {
  const { mode } = state;
  const header = jose.decodeProtectedHeader(token);
  const claims = jose.decodeJwt(token);
  const sign = (payload, head, by) => new jose.CompactSign(new TextEncoder().encode(JSON.stringify(payload)))
    .setProtectedHeader(head).sign(by);
  if (mode in BENT) return sign(BENT[mode](claims), header, key.privateKey);
  if (mode === "alg none") {
    const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    return `${encode({ ...header, alg: "none" })}.${encode(claims)}.`;
  }
  if (mode === "HS256 by the public key") {
    const pem = await jose.exportSPKI(key.publicKey);
    return sign(claims, { ...header, alg: "HS256" }, new TextEncoder().encode(pem));
  }
  if (mode === "HS256 by the client secret") {
    return sign(claims, { ...header, alg: "HS256" }, new TextEncoder().encode(SECRET));
  }
  if (mode === "key of its own in the header") {
    const other = await newKey();
    const { d, p, q, dp, dq, qi, ...jwk } = other.jwk;
    return sign(claims, { ...header, jwk }, other.privateKey);
  }
  if (mode === "another key") return sign(claims, header, (await newKey()).privateKey);
  if (mode === "altered") {
    const [head, , signature] = token.split(".");
    return `${head}.${Buffer.from(JSON.stringify({ ...claims, sub: "alice" , x: 1 })).toString("base64url")}.${signature}`;
  }
  return token;
}

async function interact(request, response) {
  const { prompt, params, session, grantId } = await provider.interactionDetails(request, response);
  const chosen = new URL(request.url, issuer).searchParams.get("as") ?? state.account;
  if (prompt.name === "login") {
    if (!chosen) {
      response.setHeader("Content-Type", "text/html");
      return response.end(`<title>Provider</title>${Object.keys(PEOPLE).map((id) => `<a href="?as=${id}">Continue as ${id}</a>`).join(" ")}`);
    }
    const result = chosen === "nobody"
      ? { error: "access_denied", error_description: "<b>no</b>" }
      : { login: { accountId: chosen } };
    return provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
  }
  const grant = grantId ? await provider.Grant.find(grantId) : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  return provider.interactionFinished(request, response, { consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: true });
}

server.on("request", async (request, response) => {
  try {
    if (request.url === "/control") {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      const { rotate, ...changes } = JSON.parse(Buffer.concat(chunks).toString());
      Object.assign(state, changes);
      if (rotate) key = await newKey();
      renew();
      return response.end("{}");
    }
    if (request.url.startsWith("/interaction/")) return await interact(request, response);
    return handle(request, response);
  } catch (error) {
    response.statusCode = 500;
    response.end(String(error));
  }
});

key = await newKey();
renew();
console.log(issuer);
