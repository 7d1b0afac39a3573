// The configuration hardn gives to ESLint when the user has none: the rules it knows a class for, from the plugins
// that are installed beside ESLint. TypeScript needs typescript-eslint.
import { writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(process.env.HARDN_ESLINT_AT);
const wanted = process.env.HARDN_ESLINT_RULES.split(",");

function installed(name) {
  try {
    return require(name);
  } catch {
    return undefined;
  }
}

const plugins = {};
for (const [prefix, name] of [["security", "eslint-plugin-security"], ["no-unsanitized", "eslint-plugin-no-unsanitized"]]) {
  const plugin = installed(name);
  if (plugin) {
    plugins[prefix] = plugin.default ?? plugin;
  }
}
const rules = {};
for (const rule of wanted) {
  const [prefix, name] = rule.split("/");
  if (name === undefined || plugins[prefix]?.rules?.[name]) {
    rules[rule] = "error";
  }
}
writeFileSync(process.env.HARDN_ESLINT_ENABLED, Object.keys(rules).join("\n"));
const jsx = { parserOptions: { ecmaFeatures: { jsx: true } } };
const config = [
  { files: ["**/*.js", "**/*.jsx", "**/*.mjs", "**/*.cjs"], plugins, rules, languageOptions: jsx },
];
const typescript = installed("typescript-eslint");
if (typescript) {
  const languageOptions = { parser: typescript.parser, ...jsx };
  config.push({ files: ["**/*.ts", "**/*.tsx"], plugins, rules, languageOptions });
}
export default config;
