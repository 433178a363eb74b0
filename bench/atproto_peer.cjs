// One repository read by the reference implementation; prints records and the CPU seconds of the best of three times.
//
// node atproto_peer.cjs FOLDER walk|verify CAR DID KEY, where FOLDER is where npm installed @atproto/repo.
const { createRequire } = require("node:module");
const { readFileSync } = require("node:fs");
const [folder, what, path, did, key] = process.argv.slice(2);
const repo = createRequire(`${folder}/package.json`)("@atproto/repo");

async function walk(bytes) {
  const { root, blocks } = await repo.readCarWithRoot(bytes);
  const readable = await repo.Repo.load(new repo.MemoryBlockstore(blocks), root);
  let count = 0;
  for await (const _ of readable.walkRecords()) count += 1;
  return count;
}

async function verify(bytes) {
  return (await repo.verifyRepoCar(bytes, did, key || undefined)).creates.length;
}

async function main() {
  const read = what === "walk" ? walk : verify;
  await read(readFileSync(path));
  const taken = [];
  let count;
  for (let time = 0; time < 3; time += 1) {
    const begun = process.cpuUsage();
    count = await read(readFileSync(path));
    const { user, system } = process.cpuUsage(begun);
    taken.push((user + system) / 1e6);
  }
  console.log(JSON.stringify({ records: count, cpu: Math.min(...taken) }));
}

main();
