// What index.d.ts declares, as JSON: for the test that holds it against the server's definitions.
import { fileURLToPath } from "node:url";
import ts from "typescript";

const file = fileURLToPath(new URL("index.d.ts", import.meta.url));
const program = ts.createProgram([file], { strict: true, noEmit: true, lib: ["lib.es2022.d.ts", "lib.dom.d.ts"] });
const faults = ts.getPreEmitDiagnostics(program);
if (faults.length > 0) {
  const host = { getCanonicalFileName: (name) => name, getCurrentDirectory: () => ".", getNewLine: () => "\n" };
  throw new Error(ts.formatDiagnostics(faults, host));
}
const source = program.getSourceFile(file);

const parameter = (node) => `${node.name.getText(source)}${node.questionToken ? "?" : ""}`;
const interfaces = {};
const unions = {};
for (const statement of source.statements) {
  if (ts.isInterfaceDeclaration(statement)) {
    interfaces[statement.name.text] = statement.members.map((member) => {
      const name = member.name.getText(source);
      return ts.isMethodSignature(member)
        ? `${name}(${member.parameters.map(parameter).join(", ")})`
        : `${name}${member.questionToken ? "?" : ""}`;
    });
  } else if (ts.isTypeAliasDeclaration(statement)) {
    // The string literals of a union, or those of its members' `type`.
    const literals = [];
    const visit = (node) => {
      if (ts.isLiteralTypeNode(node) && ts.isStringLiteral(node.literal)) literals.push(node.literal.text);
      ts.forEachChild(node, visit);
    };
    visit(statement.type);
    unions[statement.name.text] = literals;
  }
}
const events = source.statements
  .filter((statement) => ts.isInterfaceDeclaration(statement) && statement.name.text.endsWith("Event"))
  .map((statement) => statement.members[0].type.getText(source).replaceAll('"', ""));
console.log(JSON.stringify({ interfaces, unions, events }));
