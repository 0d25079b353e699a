// Text of a model, drawn. marked only cuts it into tokens; what is drawn are elements, so no text ever becomes markup:
// HTML stands there as the text it is, images are links, and links go to http(s) alone, with their host shown.
import { lexer, type Token, type Tokens } from "marked";
import type { ComponentChildren } from "preact";

const LONGEST = 400_000; // characters that are laid out; more is shown as plain text

export function Markdown({ text }: { text: string }) {
  if (text.length > LONGEST) return <pre class="plain">{text}</pre>;
  return <div class="prose">{lexer(text, { gfm: true }).map(block)}</div>;
}

function block(token: Token, key: number): ComponentChildren {
  switch (token.type) {
    case "space":
    case "def":
      return null;
    case "heading": {
      const Tag = `h${Math.min(6, (token as Tokens.Heading).depth + 2)}` as "h3";
      return <Tag key={key}>{inline(token)}</Tag>;
    }
    case "paragraph":
      return <p key={key}>{inline(token)}</p>;
    case "code":
      return (
        <pre key={key} tabIndex={0}>
          <code>{(token as Tokens.Code).text}</code>
        </pre>
      );
    case "blockquote":
      return <blockquote key={key}>{blocks(token)}</blockquote>;
    case "hr":
      return <hr key={key} />;
    case "list": {
      const { ordered, start, items } = token as Tokens.List;
      const inside = items.map((item, at) => <li key={at}>{blocks(item)}</li>);
      return ordered ? (
        <ol key={key} start={Number(start) || 1}>
          {inside}
        </ol>
      ) : (
        <ul key={key}>{inside}</ul>
      );
    }
    case "table":
      return <Table key={key} table={token as Tokens.Table} />;
    case "text":
      return (token as Tokens.Text).tokens ? <>{inline(token)}</> : plain(token);
    default:
      return <p key={key}>{token.raw}</p>; // html, and what a later version may add
  }
}

function piece(token: Token, key: number): ComponentChildren {
  switch (token.type) {
    case "strong":
      return <strong key={key}>{inline(token)}</strong>;
    case "em":
      return <em key={key}>{inline(token)}</em>;
    case "del":
      return <del key={key}>{inline(token)}</del>;
    case "codespan":
      return <code key={key}>{(token as Tokens.Codespan).text}</code>;
    case "br":
      return <br key={key} />;
    case "text":
    case "escape":
      return plain(token);
    case "link": {
      const link = token as Tokens.Link;
      return (
        <Link key={key} to={link.href}>
          {inline(token)}
        </Link>
      );
    }
    case "image": {
      const image = token as Tokens.Image;
      return (
        <Link key={key} to={image.href}>
          [image: {image.text}]
        </Link>
      );
    }
    case "checkbox":
      return (token as unknown as { checked: boolean }).checked ? "☑ " : "☐ ";
    default:
      return token.raw;
  }
}

function Link({ to, children }: { to: string; children: ComponentChildren }) {
  let url: URL | undefined;
  try {
    url = new URL(to);
  } catch {
    // No absolute address: it could only lead into this page.
  }
  if (!url || !/^https?:$/.test(url.protocol)) return <span>{children}</span>;
  return (
    <a href={url.href} target="_blank" rel="noopener noreferrer nofollow">
      {children} <span class="host">({url.host})</span>
    </a>
  );
}

function Table({ table }: { table: Tokens.Table }) {
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label="Table">
      <table>
        <thead>
          <tr>
            {table.header.map((cell, at) => (
              <th key={at} scope="col">
                {cell.tokens.map(piece)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {table.rows.map((row, at) => (
            <tr key={at}>
              {row.map((cell, place) => (
                <td key={place}>{cell.tokens.map(piece)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

const blocks = (token: Token) => ((token as Tokens.Blockquote).tokens ?? []).map(block);
const inline = (token: Token) => ((token as Tokens.Strong).tokens ?? []).map(piece);
// `raw`, because `text` may be escaped for HTML.
const plain = (token: Token) => (token.type === "escape" ? (token as Tokens.Escape).text : token.raw);
