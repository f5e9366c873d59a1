"""Code that calls generated modules: as it should be, and with mistakes that checkers must find."""

from __future__ import annotations

PYTHON_RIGHT = """\
from headstart import PrecomputeClient

import pipelines


async def right(client: PrecomputeClient) -> list[str]:
    started = await pipelines.start_typed(client, "k", text="a bee a", ttl=60)
    found = await pipelines.get_typed(
        client, "k", wait=20, required_steps=["words"], min_revision=started.revision
    )
    words = list(found.words or [])
    if found.counts is not None:
        words.append(found.counts[0]["word"].upper())
        print(found.counts[0]["share"] / 2)
    if found.lengths is not None:
        print(found.lengths.shape)
    if found.raw is not None:
        words.append(found.raw.decode())
    await pipelines.start_schemas_all_2(client, "s", text="", key_=1, class_="a", depth=None)
    every = await pipelines.get_schemas_all_2(client, "s")
    if every.awkward is not None:
        print(every.awkward["a-b"]["left"] + every.awkward["class"], every.awkward["list"])
    if every.tree is not None and every.tree["children"]:
        print(every.tree["children"][0]["value"] + 1)
    for pet in every.pets or []:
        print(pet["lives"] + 1 if pet["kind"] == "cat" else pet["tricks"])
    async for run in client.watch_results("k"):
        words += pipelines.results_of_typed(run).words or []
    return words
"""
PYTHON_WRONG = """\
from headstart import BlockingClient, PrecomputeClient

import pipelines


async def wrong(client: PrecomputeClient, blocking: BlockingClient) -> None:
    await pipelines.start_typed(client, "k", text=1)
    await pipelines.start_typed(client, "k")
    await pipelines.start_typed(client, "k", text="", txet="")
    await pipelines.start_typed(blocking, "k", text="")
    await pipelines.start_schemas_all_2(client, "s", text="", key_=1, class_="c")
    found = await pipelines.get_typed(client, "k")
    await pipelines.get_typed(client, "k", required_steps=["wrods"])
    found.wrods
    found.words[0]
    assert found.words and found.counts
    found.words[0] + 1
    found.counts[0]["wrod"]
    found.counts[0]["times"].upper()
"""
PYTHON_WRONG_LINES = (7, 8, 9, 10, 11, 13, 14, 15, 17, 18, 19)
"""Each has one mistake."""

TYPESCRIPT_CLIENT = """\
export type Json = string | number | boolean | null | readonly Json[] | { readonly [name: string]: Json };
export type Value = Json | Uint8Array;
export interface StartOptions { ttlMs?: number; restart?: boolean }
export interface ReadOptions {
  waitMs?: number; requiredSteps?: readonly string[]; resultSteps?: readonly string[];
}
export interface Started { outcome: string; revision: number }
export interface Results<S extends object = Record<string, Value>> { status: string; values: Partial<S> }
export class Client {
  async start(
    key: string, pipeline: string, inputs: { readonly [name: string]: Json } = {}, options: StartOptions = {},
  ): Promise<Started> {
    return { outcome: `${key} ${pipeline} ${Object.keys(inputs)} ${options.ttlMs}`, revision: 1 };
  }
  async getResults<S extends object = Record<string, Value>>(
    key: string, options: ReadOptions & { minRevision?: number } = {},
  ): Promise<Results<S>> {
    return { status: `${key} ${options.waitMs}`, values: {} };
  }
}
"""
TYPESCRIPT_RIGHT = """\
import { Client } from "./client.js";
import * as pipelines from "./pipelines.js";

export async function right(client: Client): Promise<string[]> {
  const started = await pipelines.startTyped(client, "k", { text: "a bee a" }, { ttlMs: 60 });
  const revision: number = started.revision;
  const found = await pipelines.getTyped(client, "k", { waitMs: 20, requiredSteps: ["words"] });
  const words: string[] = [...(found.words ?? []), found.run.status, `${revision}`];
  if (found.counts) words.push(found.counts[0].word.toUpperCase(), `${found.counts[0].share / 2}`);
  if (found.lengths) words.push(`${found.lengths.shape[0]} ${found.lengths.data[0]}`);
  if (found.raw) words.push(new TextDecoder().decode(found.raw));
  await pipelines.startSchemasAll2(client, "s", { text: "", key: 1, class: "a", depth: null });
  await pipelines.startSchemasAll22(client, "t");
  const every = await pipelines.getSchemasAll2(client, "s");
  if (every.awkward) words.push(`${every.awkward["a-b"].left + every.awkward.class}`);
  for (const pet of every.pets ?? []) words.push(`${pet.kind === "cat" ? pet.lives + 1 : pet.tricks[0]}`);
  return words;
}
"""
TYPESCRIPT_WRONG = """\
import { Client } from "./client.js";
import * as pipelines from "./pipelines.js";

export async function wrong(client: Client): Promise<void> {
  await pipelines.startTyped(client, "k", { text: 1 });
  await pipelines.startTyped(client, "k", {});
  await pipelines.startTyped(client, "k", { text: "", txet: "" });
  await pipelines.startTyped(client, "k", { text: "" }, { tllMs: 60 });
  await pipelines.startSchemasAll2(client, "s", { text: "", key: 1, class: "c" });
  const found = await pipelines.getTyped(client, "k");
  await pipelines.getTyped(client, "k", { requiredSteps: ["wrods"] });
  await pipelines.getTyped(client, "k", { wiatMs: 1 });
  found.wrods;
  found.words[0];
  if (!found.words || !found.counts) return;
  found.words[0] * 1;
  found.counts[0].wrod;
  found.counts[0].times.toUpperCase();
}
"""
TYPESCRIPT_WRONG_LINES = (5, 6, 7, 8, 9, 11, 12, 13, 14, 16, 17, 18)
"""Each has one mistake."""
