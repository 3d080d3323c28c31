// Prints, as one JSON object, the expression of npm's capnweb for each agreed value.
import { serialize } from "capnweb";
import { values } from "./interop_values.mjs";

console.log(
  JSON.stringify(Object.fromEntries(Object.entries(values).map(([name, value]) => [name, serialize(value)]))),
);
