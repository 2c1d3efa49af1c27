// Use a server with the official TypeScript SDK 1 or 2, and print what it shows: its lists and one call.
// Argument: JSON with `sdk`, and either `command` and `env` or `url`; `tool` and `arguments` of the call. With a
// `url` also `headers`, and `signs_in` for a client that can do OAuth and says where it would send a browser.
// The SDKs are those of the folder in which it runs. It can all that a server may ask of a client.
const { createRequire } = require("node:module");
const load = createRequire(process.cwd() + "/here.js");
const given = JSON.parse(process.argv[2]);
const parts =
  given.sdk === 1
    ? ["sdk/client/index.js", "sdk/client/stdio.js", "sdk/client/streamableHttp.js", "sdk/types.js"]
    : ["client", "client/stdio"];
const sdk = Object.assign({}, ...parts.map((part) => load("@modelcontextprotocol/" + part)));

async function whole(list, member) {
  const found = [];
  let cursor;
  do {
    const page = await list(cursor === undefined ? {} : { cursor });
    found.push(...page[member]);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return found;
}

function signingIn() {
  const kept = {};
  return {
    redirectUrl: "http://127.0.0.1:9/callback",
    clientMetadata: { redirect_uris: ["http://127.0.0.1:9/callback"], client_name: "real" },
    clientInformation: () => kept.client,
    saveClientInformation: (client) => (kept.client = client),
    tokens: () => kept.tokens,
    saveTokens: (tokens) => (kept.tokens = tokens),
    codeVerifier: () => kept.verifier,
    saveCodeVerifier: (verifier) => (kept.verifier = verifier),
    redirectToAuthorization: (url) => console.error("BROWSER", String(url)),
  };
}

async function main() {
  const capabilities = { roots: {}, sampling: {}, elicitation: { form: {}, url: {} } };
  const client = new sdk.Client({ name: "real", version: "1" }, { capabilities });
  const roots = given.sdk === 1 ? sdk.ListRootsRequestSchema : "roots/list";
  client.setRequestHandler(roots, () => ({ roots: [] }));
  const transport = given.url
    ? new sdk.StreamableHTTPClientTransport(new URL(given.url), {
        requestInit: { headers: given.headers ?? {} },
        authProvider: given.signs_in ? signingIn() : undefined,
      })
    : new sdk.StdioClientTransport({
        command: given.command[0],
        args: given.command.slice(1),
        env: given.env,
        stderr: "ignore",
      });
  await client.connect(transport);
  const has = client.getServerCapabilities() ?? {};
  const shown = { tools: [], prompts: [], resources: [], templates: [] };
  if (has.tools) shown.tools = await whole((page) => client.listTools(page), "tools");
  if (has.prompts) shown.prompts = await whole((page) => client.listPrompts(page), "prompts");
  if (has.resources) {
    shown.resources = await whole((page) => client.listResources(page), "resources");
    shown.templates = await whole(
      (page) => client.listResourceTemplates(page).catch(() => ({ resourceTemplates: [] })),
      "resourceTemplates",
    );
  }
  shown.called = await client
    .callTool({ name: given.tool, arguments: given.arguments })
    .catch((error) => ({ code: error.code, message: error.message }));
  await client.close();
  process.stdout.write(JSON.stringify(shown), () => process.exit(0));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
