// The `openai` npm package against a running gateway: GATEWAY_URL and GATEWAY_KEY name it, SIM_URL the provider behind.
//
// What another language's SDK adds to the Python one is another HTTP client, another SSE reader and another multipart
// encoder; so each of these is used here at least once, with every surface the package has.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import OpenAI, { toFile } from "openai";

globalThis.File ??= (await import("node:buffer")).File; // Debian 12's node has none, and the package asks for this

const { GATEWAY_URL, GATEWAY_KEY, SIM_URL } = process.env;
const HELLO = [{ role: "user", content: "hello there" }];
const TOOL = {
  type: "function",
  function: { name: "get_weather", parameters: { type: "object", properties: { city: { type: "string" } } } },
};
const SOUND = Buffer.from(Uint8Array.from({ length: 100_000 }, (_, at) => at % 256));

const client = new OpenAI({ apiKey: GATEWAY_KEY, baseURL: `${GATEWAY_URL}/v1`, maxRetries: 0, timeout: 20_000 });
const seen = async (model) => {
  const { requests } = await (await fetch(`${SIM_URL}/__sim/requests`)).json();
  return requests.filter((entry) => entry.model === model.replace(/^sim-/, "")).at(-1);
};
const collected = async (stream) => {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
};

before(async () => {
  assert.ok(GATEWAY_URL && GATEWAY_KEY && SIM_URL, "GATEWAY_URL, GATEWAY_KEY and SIM_URL must be set");
  await fetch(`${SIM_URL}/__sim/reset`, { method: "POST" });
});

test("chat, whole and streamed, says the same", async () => {
  const whole = await client.chat.completions.create({ model: "sim-n", messages: HELLO });
  const chunks = await collected(await client.chat.completions.create({ model: "sim-n", messages: HELLO, stream: true }));
  const text = chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join("");
  assert.equal(text, whole.choices[0].message.content);
  assert.ok(chunks.every((chunk) => chunk.choices.length === 1));
  assert.ok(whole.usage.completion_tokens > 0);
  assert.ok(whole._request_id);
});

test("chat with usage in the stream, tools, pictures, a schema, several choices", async () => {
  const counted = await collected(
    await client.chat.completions.create({
      model: "sim-n+tokens=4",
      messages: HELLO,
      stream: true,
      stream_options: { include_usage: true },
    }),
  );
  assert.equal(counted.at(-1).usage.completion_tokens, 4);
  const called = await client.chat.completions
    .stream({ model: "sim-n", messages: HELLO, tools: [TOOL], tool_choice: "required" })
    .finalChatCompletion();
  assert.equal(called.choices[0].message.tool_calls[0].function.name, "get_weather");
  const image_url = { url: `data:image/png;base64,${SOUND.toString("base64")}` };
  const shown = [{ role: "user", content: [{ type: "text", text: "what is it?" }, { type: "image_url", image_url }] }];
  const answer = await client.chat.completions.create({ model: "sim-n", messages: shown, n: 2 });
  assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1]);
  assert.match(answer.choices[0].message.content, /what is it\?/);
  const json_schema = { name: "place", schema: TOOL.function.parameters };
  const shaped = await client.chat.completions.create({
    model: "sim-n",
    messages: HELLO,
    response_format: { type: "json_schema", json_schema },
  });
  assert.ok("city" in JSON.parse(shaped.choices[0].message.content));
});

for (const [model, kind, status] of [
  ["sim-n+status=400", OpenAI.BadRequestError, 400],
  ["no-such-model", OpenAI.NotFoundError, 404],
  ["sim-n+status=429", OpenAI.RateLimitError, 429],
  ["sim-n+status=500", OpenAI.InternalServerError, 500],
  ["sim-n+status=401", OpenAI.InternalServerError, 502],
]) {
  test(`${model} is thrown as ${status}`, async () => {
    for (const stream of [false, true]) {
      await assert.rejects(client.chat.completions.create({ model, messages: HELLO, stream }), (error) => {
        assert.ok(error instanceof kind, String(error));
        assert.equal(error.status, status);
        return true;
      });
    }
  });
}

test("an unknown key is an AuthenticationError", async () => {
  const stranger = client.withOptions({ apiKey: "gw-nobody" });
  await assert.rejects(stranger.chat.completions.create({ model: "sim-n", messages: HELLO }), OpenAI.AuthenticationError);
});

test("a broken stream throws behind what came before", async () => {
  const stream = await client.chat.completions.create({ model: "sim-n+truncate=4", messages: HELLO, stream: true });
  const texts = [];
  await assert.rejects(async () => {
    for await (const chunk of stream) texts.push(chunk.choices[0].delta.content);
  }, OpenAI.APIError);
  assert.equal(texts.length, 4);
});

test("aborting a stream aborts the provider", async () => {
  const model = "sim-n+tokens=2000+token-ms=10";
  const stream = await client.chat.completions.create({ model, messages: HELLO, stream: true });
  for await (const chunk of stream) if (chunk.choices[0].delta.content) break; // leaving the loop aborts
  let entry;
  for (const until = Date.now() + 10_000; Date.now() < until && !entry?.ended; ) entry = await seen(model);
  assert.equal(entry.ended, "aborted");
});

test("completions, embeddings, moderations", async () => {
  const whole = await client.completions.create({ model: "sim-n", prompt: "say it" });
  const chunks = await collected(await client.completions.create({ model: "sim-n", prompt: "say it", stream: true }));
  assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(""), whole.choices[0].text);
  const packed = await client.embeddings.create({ model: "sim-n", input: "one", dimensions: 8 });
  const plain = await client.embeddings.create({ model: "sim-n", input: "one", dimensions: 8, encoding_format: "float" });
  plain.data[0].embedding.forEach((value, at) => assert.ok(Math.abs(value - packed.data[0].embedding[at]) < 1e-6));
  const judged = await client.moderations.create({ model: "sim-n", input: ["hurt", "love"] });
  assert.deepEqual(judged.results.map((result) => result.flagged), [true, false]);
});

test("responses, whole and streamed", async () => {
  const whole = await client.responses.create({ model: "sim-n", input: "say it" });
  assert.match(whole.output_text, /say it/);
  const events = await collected(await client.responses.create({ model: "sim-n", input: "say it", stream: true }));
  assert.equal(events[0].type, "response.created");
  assert.equal(events.at(-1).type, "response.completed");
});

test("images", async () => {
  const made = await client.images.generate({ model: "sim-n", prompt: "a hat", n: 2 });
  assert.equal(made.data.length, 2);
  const image = await toFile(SOUND, "hat.png", { type: "image/png" });
  const edited = await client.images.edit({ model: "sim-n-edit", image, prompt: "a red hat" });
  assert.ok(edited.data[0].b64_json);
  assert.equal((await seen("sim-n-edit")).upload_bytes, SOUND.length);
  const varied = await client.images.createVariation({ model: "sim-n", image });
  assert.ok(varied.data[0].b64_json);
});

test("audio, up and down", async () => {
  const speech = await client.audio.speech.create({ model: "sim-n", voice: "alloy", input: "a sentence" });
  assert.equal(Buffer.from(await speech.arrayBuffer()).subarray(0, 4).toString(), "RIFF");
  const file = await toFile(SOUND, "speech.wav");
  const heard = await client.audio.transcriptions.create({ model: "sim-n-heard", file });
  assert.match(heard.text, new RegExp(`${SOUND.length} bytes`));
  assert.equal((await seen("sim-n-heard")).upload_bytes, SOUND.length);
  const events = await collected(await client.audio.transcriptions.create({ model: "sim-n", file, stream: true }));
  assert.equal(events.at(-1).text, heard.text);
  const said = await client.audio.translations.create({ model: "sim-n", file });
  assert.match(said.text, new RegExp(`${SOUND.length} bytes`));
});

test("models", async () => {
  const models = await collected(client.models.list());
  assert.deepEqual(models.map((model) => model.id), ["second", "renamed"]);
  assert.equal((await client.models.retrieve("renamed")).id, "renamed");
});
