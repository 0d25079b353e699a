import { readFileSync } from "node:fs";
import { defineConfig, type Plugin } from "vite";

const BUNDLED = ["preact", "@preact/signals", "@preact/signals-core", "marked", "uplot"];

/** The licences of what is bundled, in one file that ships with it. */
const licenses: Plugin = {
  name: "licenses",
  generateBundle() {
    const texts = BUNDLED.map((name) => {
      const folder = `node_modules/${name}`;
      const version = JSON.parse(readFileSync(`${folder}/package.json`, "utf8")).version;
      return `${name} ${version}\n\n${readFileSync(`${folder}/LICENSE`, "utf8").trim()}\n`;
    });
    this.emitFile({ type: "asset", fileName: "licenses.txt", source: texts.join(`\n${"-".repeat(80)}\n\n`) });
  },
};

// Names are fixed, so that a rebuild changes only the files whose contents changed. The page is at / and its files are
// at /web/; both relative, because a proxy may put a prefix before them.
export default defineConfig({
  base: "./",
  plugins: [licenses],
  experimental: {
    renderBuiltUrl: (name, { hostType }) => (hostType === "html" ? `web/${name}` : { relative: true }),
  },
  build: {
    outDir: "../src/ponder/serve/web",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    rollupOptions: {
      output: { entryFileNames: "app.js", chunkFileNames: "[name].js", assetFileNames: "app[extname]" },
    },
  },
  server: { proxy: { "/v1": "http://localhost:8000" } },
});
