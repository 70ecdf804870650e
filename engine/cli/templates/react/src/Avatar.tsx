import type { CSSProperties } from "react";

/** The first letter of a name, in a colour that it always has. */
export function Avatar({ name }: { name: string }) {
  const hue = [...name].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)!) % 360, 7);
  return (
    <span className="avatar" style={{ "--hue": hue } as CSSProperties} aria-hidden>
      {[...name][0]?.toUpperCase()}
    </span>
  );
}
