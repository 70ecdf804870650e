// Runs the tests of a folder, one file after another: node main.mjs FOLDER [NAME...]
import fs from "node:fs";
import path from "node:path";
import { run } from "node:test";

const [folder, ...wanted] = process.argv.slice(2);
const files = fs
  .readdirSync(folder)
  .filter((name) => name.endsWith(".test.mjs"))
  .filter((name) => wanted.length === 0 || wanted.some((want) => name.includes(want)))
  .map((name) => path.resolve(folder, name));

process.env.NODE_ENV ??= "test"; // asked by React when it is imported

const FILE_MS_MAX = 180_000;

let passed = 0;
let failed = 0;
run({ files, concurrency: 1, timeout: FILE_MS_MAX })
  .on("test:pass", (test) => {
    if (isFile(test)) return;
    passed++;
    console.log(`PASS ${test.name}`);
  })
  .on("test:fail", (test) => {
    failed++;
    console.log(`FAIL ${test.name}: ${test.details.error?.cause?.stack ?? test.details.error}`);
  })
  .on("test:stderr", ({ message }) => {
    // Said at each import; what would replace it needs a browser.
    if (!message.includes("react-test-renderer is deprecated")) process.stderr.write(message);
  })
  .on("end", () => {
    console.log(`${passed} passed, ${failed} failed`);
    process.exitCode = failed || !passed ? 1 : 0;
  })
  .resume();

/** Files count as tests, too; only those that fail are worth a line. */
function isFile(test) {
  return files.includes(test.name) || files.includes(path.resolve(test.name));
}
